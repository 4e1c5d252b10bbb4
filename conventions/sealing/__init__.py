"""What a message holds is sealed on its way (R21): keys, and what they seal."""
