#!/bin/sh
# Run once, by the PostgreSQL image, on an empty data folder: three roles and two databases.
#   neurosweep_owner  owns the database of the studies and changes its schema (the service `migrate`)
#   neurosweep        reads and writes its rows, and can neither create, drop nor truncate (the dispatcher)
#   mlflow            owns MLflow's database, and cannot enter the other one
# psql takes the passwords from the environment, so that they are in no process list.
set -eu

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" --dbname=postgres <<'SQL'
\getenv owner_password NEUROSWEEP_OWNER_PASSWORD
\getenv service_password NEUROSWEEP_SERVICE_PASSWORD
\getenv mlflow_password MLFLOW_PASSWORD

CREATE ROLE neurosweep_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE neurosweep LOGIN PASSWORD :'service_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';

CREATE DATABASE neurosweep OWNER neurosweep_owner;
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE postgres, neurosweep, mlflow FROM PUBLIC;
GRANT CONNECT ON DATABASE neurosweep TO neurosweep;

\connect neurosweep
ALTER DEFAULT PRIVILEGES FOR ROLE neurosweep_owner GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO neurosweep;
ALTER DEFAULT PRIVILEGES FOR ROLE neurosweep_owner GRANT USAGE, SELECT ON SEQUENCES TO neurosweep;
SQL
