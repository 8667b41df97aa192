"""Recorded answers: everything that the product answers, written down before a change and compared after it.

Use it for a change that should change no answer: a move of files, a rename, another cut of the code. Record on the
commit before, compare after every step:

    python -m devtools.recorded record FILE
    python -m devtools.recorded compare FILE

The tool uses the interfaces that stay: `explain_handler.ExplainHandler` behind TorchServe's own `Service`, archives
that it writes by itself, and HTTP and gRPC for servers. So the same tool runs before and after.

In process an answer is equal to the byte. One thread computes, chunks have a fixed size, and the clock stands still:
it moves by a fixed time for each row of the test network's forward pass, where a case needs a deadline. A recording
holds for one machine and its installed packages; it is no file to commit.
"""
