"""Addresses."""

from django.urls import path
from orders import views

urlpatterns = [path("orders/", views.order), path("orders/<int:order_id>/", views.state)]
