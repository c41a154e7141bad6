"""Instructions that a record costs, counted and compared with a budget."""
