//! Why two sides of a connection did not come together, in words for the one who has to mend it.

use std::fmt::Write as _;
use std::io;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// Why a handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// A word for metrics.
    pub(crate) reason: &'static str,
    /// What the other side did.
    pub(crate) text: String,
}

impl Refusal {
    /// What `error` says about the other side; nothing if the connection just broke, as that of a
    /// probe that only looks whether the port is open.
    pub(crate) fn of(error: &io::Error) -> Option<Refusal> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        let refusal = |reason, text: String| Some(Refusal { reason, text });
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
                refusal("plain_text", "it does not speak TLS".to_owned())
            }
            Error::NoCertificatesPresented => {
                refusal("no_certificate", "it shows no certificate".to_owned())
            }
            Error::InvalidCertificate(error) => {
                let why = of_certificate(error);
                refusal("certificate", format!("its certificate is not accepted: {why}"))
            }
            Error::AlertReceived(alert) => {
                let text = of_alert(*alert);
                refusal("refused_by_peer", text)
            }
            other => refusal("other", other.to_string()),
        }
    }
}

/// What is wrong with a certificate.
pub(super) fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is signed by none of the authorities that are known here".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let mut text = format!("it is not for the name {}", expected.to_str());
            if !presented.is_empty() {
                // Writing into a string does not fail.
                let _ = write!(text, " but for {}", presented.join(", "));
            }
            text
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for this use: its extended key usage has to name both server and client, or \
             be absent"
                .to_owned()
        }
        other => other.to_string(),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "it wants a certificate, and was shown none".to_owned()
        }
        AlertDescription::UnknownCA => {
            "it does not know the authority of the certificate that it was shown".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "the certificate that it was shown has expired".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => {
            format!("it does not accept the certificate that it was shown ({alert:?})")
        }
        other => format!("it gave up ({other:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: Error) -> Refusal {
        Refusal::of(&io::Error::new(io::ErrorKind::InvalidData, error)).unwrap()
    }

    #[test]
    fn what_went_wrong_is_said_in_words() {
        let plain = of(Error::InvalidMessage(InvalidMessage::InvalidContentType));
        assert_eq!((plain.reason, &*plain.text), ("plain_text", "it does not speak TLS"));
        let unknown = of(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(unknown.reason, "certificate");
        assert!(unknown.text.contains("none of the authorities"), "{unknown:?}");
        let refused = of(Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(refused.reason, "refused_by_peer");
        assert_eq!(Refusal::of(&io::Error::from(io::ErrorKind::UnexpectedEof)), None);
    }
}
