"""What develops and demonstrates heatserve. Nothing here ships in an archive."""
