"""What can be hung on the pipeline, each in a file or package of its own."""
