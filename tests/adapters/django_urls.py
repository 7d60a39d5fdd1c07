"""The URLconf of the shared case table."""

from django.urls import path

from tests.adapters.django_site import plain, service
from tests.adapters.stacks import DECORATED, PATHS, serve

urlpatterns = [
    *(
        path(pattern[1:].replace("{", "<").replace("}", ">"), service(serve), name=pattern)
        for pattern in PATHS
    ),
    *(path(name[1:], plain(function), name=name) for name, function in DECORATED.items()),
]
