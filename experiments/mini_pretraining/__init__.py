"""Pretraining of the small CLIP and the small guide that crane ships, from nothing."""
