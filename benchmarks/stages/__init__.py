"""What each stage of a record costs by itself, through the doors of the tests: make bench-stages."""
