"""What Celery, kombu, billiard and RedBeat do not document, and this package uses: one file per library, one seam test each."""
