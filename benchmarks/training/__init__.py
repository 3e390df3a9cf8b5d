"""What the words of training bring, measured on validation alone. Start with ``words``."""
