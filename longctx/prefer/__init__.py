"""Preference data: pairs of a better and a worse text, sampled from a model and judged by one."""
