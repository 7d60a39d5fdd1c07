"""Who used what: what is counted, kept and asked. Values in, values out."""
