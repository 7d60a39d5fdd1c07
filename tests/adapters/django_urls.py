"""The URLconf of the shared case table."""

from django.urls import path

from tests.adapters.django_site import plain, service
from tests.adapters.stacks import DECORATED, PATHS, serve

urlpatterns = [
    *(path(one[1:].replace("{", "<").replace("}", ">"), service(serve), name=one) for one in PATHS),
    *(path(one[1:], plain(function), name=one) for one, function in DECORATED.items()),
]
