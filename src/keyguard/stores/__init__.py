"""Where keys live.

What belongs here: the two protocols (:mod:`~keyguard.stores.base`), one module or folder for each
kind of store, and :mod:`~keyguard.stores.opening` and :mod:`~keyguard.stores.limiters`, which turn
a URL into a store or a limiter. The kinds know nothing of each other, and none knows a rule: they
find, list, add and change.
"""
