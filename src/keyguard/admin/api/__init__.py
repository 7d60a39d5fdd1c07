"""The endpoints of the management API: a module for each subject, and all of them joined.

The functions that end in ``_form`` return what the API shows of a record.
"""

from __future__ import annotations

from keyguard.admin.api import me, organizations
from keyguard.admin.endpoints import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (*me.ENDPOINTS, *organizations.ENDPOINTS)
