"""What is remembered: studies, trials and epochs in SQL, and their projection in MLflow."""
