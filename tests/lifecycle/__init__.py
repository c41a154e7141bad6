"""What a process does to its producers: interrupts, forks, exits, little memory. Programs; the tests run them."""
