"""Parts that the homework's scripts share: flags, data, published figures, reports."""
