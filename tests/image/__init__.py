"""Tests of images: fetching, what vouches for them, and the cache."""
