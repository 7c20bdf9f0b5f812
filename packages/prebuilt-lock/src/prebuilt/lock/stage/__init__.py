"""Layers in the build stage of a Dockerfile: the program that makes them there, and what it is sent from here."""
