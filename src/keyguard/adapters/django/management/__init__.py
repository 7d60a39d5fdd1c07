"""What `manage.py` looks for in an application: the folder of its commands."""
