"""Records of keys and organizations, the commit of a change, and the audit trail."""
