"""A page that shows what was gathered."""

from django.conf import settings
from django.http import HttpResponse
from django.urls import path

VERSION = "v1"


def index(request):
    gathered = sorted(file.name for file in settings.STATIC_ROOT.iterdir())
    return HttpResponse(f"{VERSION} with {', '.join(gathered)}\n", content_type="text/plain")


urlpatterns = [path("", index)]
