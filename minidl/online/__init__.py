"""SGD on one example at a time, as fast as on batches.

``fitting`` has the two functions that train, ``blocks`` what happens to the first layer,
``tails`` what happens after it.
"""

from minidl.online.fitting import OnlineRun, compounding, fit_online, fit_side_by_side

__all__ = ["OnlineRun", "compounding", "fit_online", "fit_side_by_side"]
