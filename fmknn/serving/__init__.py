"""From a trained model to lists."""
