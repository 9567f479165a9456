"""What is in a run's folder?"""
