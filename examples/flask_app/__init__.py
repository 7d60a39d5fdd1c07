"""AIaaS on Flask: ``flask --app examples.flask_app.app run``."""
