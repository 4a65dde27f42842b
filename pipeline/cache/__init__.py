"""Decoded samples kept between passes."""
