"""What do pages say of runs?"""
