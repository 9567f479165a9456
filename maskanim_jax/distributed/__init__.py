"""How does training use several devices and processes?"""
