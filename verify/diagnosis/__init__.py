"""From a failing finding to a sentence that names the mistake. A diagnosis never decides a verdict."""

from verify.diagnosis.diagnose import diagnose as diagnose
