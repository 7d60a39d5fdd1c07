"""AIaaS on Starlette: ``uvicorn --factory examples.starlette_app.app:create_app``."""
