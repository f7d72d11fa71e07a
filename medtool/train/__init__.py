"""Training, prediction and calibration of classifiers."""
