"""Settings, log, folder and result files of a run; neither Keras nor physics is imported."""
