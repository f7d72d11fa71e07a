"""Heatmaps to prompts to masks."""
