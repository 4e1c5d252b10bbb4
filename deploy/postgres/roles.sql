-- Who may do what in PostgreSQL. The owner runs it, before each `db upgrade`; a second time it changes nothing.
--
-- `conventions` owns the tables, and makes and alters them: `celery db upgrade` alone has its password.
-- `conventions_app` reads and writes rows: workers, beat, Flower, commands. It makes, alters and empties no table.
\set ON_ERROR_STOP on
\set app_password `cat /run/secrets/postgres_app_password`

SELECT 'CREATE ROLE conventions_app' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'conventions_app') \gexec
ALTER ROLE conventions_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD :'app_password';

REVOKE ALL ON DATABASE :"DBNAME" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"DBNAME" TO conventions_app;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO conventions_app;

-- What is there, and what the owner makes later.
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO conventions_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO conventions_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO conventions_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO conventions_app;
