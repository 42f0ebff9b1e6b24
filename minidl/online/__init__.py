"""SGD on one example at a time, as fast as on batches.

``fitting`` has the two functions that train, ``runs`` the settings of one run and the orders of
examples. ``blocks`` computes the first layer, ``tails`` the layers and the loss after it.
"""

from minidl.online.fitting import fit_online, fit_side_by_side
from minidl.online.runs import OnlineRun, compounding

__all__ = ["OnlineRun", "compounding", "fit_online", "fit_side_by_side"]
