"""Training and search by Amazon SageMaker's own algorithms, behind the same interface."""
