"""Real tokens and hashes of other systems.

Where the system is a Python package, the tests run it. What is not:

- Seam's ``prefixed-api-key`` is on npm; these are what version 1.1.1 of it made.
- Laravel Sanctum is PHP; it keeps ``hash('sha256', $plainTextToken)`` and hands out
  ``$id|$plainTextToken``, which is made here with hashlib.
"""

from __future__ import annotations

import hashlib

SEAM = [
    (
        "mycompany_inys2xoj",
        "mycompany_inys2xoj_KJaN2c4hsRADk2BKpLTEocTr",
        "72c0e54311729641f04430cd4ae457b5f404718b2e7895f562a22f5a37f3b080",
    ),
    (
        "my_company_live_dqFoKvMh",
        "my_company_live_dqFoKvMh_NkJckVRRwpAVJvL3UtLHrTyG",
        "0a29551e6651c8c6380c849f28d52a36f8260de4c4e16b21f37ca200880b4062",
    ),
    (
        "acme_tEtqwZy217",
        "acme_tEtqwZy217_21f31brS1mPgELSBxPpVSn4fUGQLrvJJ",
        "6c0a7582cd6112707677c4f4b9fe5f91a1636abb75e8a64884bf81df091f2329",
    ),
    (  # the one in its README
        "mycompany_BRTRKFsL",
        "mycompany_BRTRKFsL_51FwqftsmMDHHbJAMEXXHCgG",
        "d70d981d87b449c107327c2a2afbf00d4b58070d6ba571aac35d7ea3e7c79f37",
    ),
]
"""Public part, token, and the hash that was kept."""

_PLAIN = "Xb7cTq0LpZ4vNf2sRk8mWd1yGh5jUa3eOi6tCrBx5d2c9a17"
SANCTUM = ("42", f"42|{_PLAIN}", hashlib.sha256(_PLAIN.encode()).hexdigest())
