"""What the homework's scripts share: flags, choice of data, published figures, reports."""
