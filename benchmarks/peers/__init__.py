"""What neurosweep is compared with: each peer is a script that prints one JSON document."""
