"""Noise schedules, boundary scalings and samplers that several families share: pure maths, no model, no training."""
