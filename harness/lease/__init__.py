"""Guests handed out: booted, cloned from templates, pooled, and items run on them."""
