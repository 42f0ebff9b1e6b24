"""Objects by their dotted names."""

import importlib


def resolve(name):
    """Return the object with a dotted name, or None."""
    parts = name.split(".")
    for i in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
            for part in parts[i:]:
                found = getattr(found, part)
        except (ModuleNotFoundError, AttributeError):
            continue
        return found
    return None
