"""What does a run's folder say?"""
