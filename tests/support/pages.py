"""The Python blocks of a page of the documentation."""

import re


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
