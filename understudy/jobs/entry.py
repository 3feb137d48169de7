"""What a container of the image ``spark`` begins with where Spark makes its pod: ``driver …`` or ``executor``.

Spark says the rest by arguments and by variables, as its documentation of Kubernetes has them; the packages of the
image need no SPARK_HOME. Anything else is run as it is.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["command_of", "main"]

_BACKEND = "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend"
_EXECUTOR = {
    "--driver-url": "SPARK_DRIVER_URL",
    "--executor-id": "SPARK_EXECUTOR_ID",
    "--cores": "SPARK_EXECUTOR_CORES",
    "--app-id": "SPARK_APPLICATION_ID",
    "--hostname": "SPARK_EXECUTOR_POD_IP",
    "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
    "--podName": "SPARK_EXECUTOR_POD_NAME",
}
_OPTION = "SPARK_JAVA_OPT_"


def command_of(arguments: list[str], environ: Mapping[str, str], home: Path) -> list[str]:
    """The process that a container becomes.

    Args:
        home: of Spark: ``bin/`` and ``jars/``.

    Raises:
        ValueError: an executor without what Spark tells executors.
    """
    match arguments:
        case ["driver", *more]:
            address = environ.get("SPARK_DRIVER_BIND_ADDRESS", "")
            bound = ["--conf", f"spark.driver.bindAddress={address}"] if address else []
            return [str(home / "bin" / "spark-submit"), *bound, "--deploy-mode", "client", *more]
        case ["executor"]:
            return _executor(environ, home)
        case _:
            return arguments


def _executor(environ: Mapping[str, str], home: Path) -> list[str]:
    missing = sorted(set(_EXECUTOR.values()) - set(environ))
    if missing:
        raise ValueError(f"executor: expected variables that Spark sets, found no {', '.join(missing)}")
    java = f"{environ['JAVA_HOME']}/bin/java" if "JAVA_HOME" in environ else "java"
    numbers = sorted(int(name.removeprefix(_OPTION)) for name in environ if name.startswith(_OPTION))
    heap = environ.get("SPARK_EXECUTOR_MEMORY", "1g")
    classes = ":".join(filter(None, (environ.get("SPARK_CONF_DIR"), f"{home}/jars/*", environ.get("SPARK_CLASSPATH"))))
    told = [part for option, name in _EXECUTOR.items() for part in (option, environ[name])]
    options = [environ[f"{_OPTION}{number}"] for number in numbers]
    return [java, *options, f"-Xms{heap}", f"-Xmx{heap}", "-cp", classes, _BACKEND, *told]


def main() -> None:
    """Become the process."""
    import pyspark

    try:
        command = command_of(sys.argv[1:], os.environ, Path(pyspark.__file__).parent)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if not command or shutil.which(command[0]) is None:
        sys.exit(f"error: expected driver, executor or a command, found {command[:1] or 'nothing'}")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
