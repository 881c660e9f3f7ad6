"""What leaves a run: lists and predictions as tables, a trained model as a folder that others can load."""
