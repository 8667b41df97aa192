"""Methods that heatserve does not bring: each is one file with one row, as an installed package would have it."""
