#if !canImport(CXen)
  /// Real Xen needs the C libraries of libxen-dev. SwiftPM remembers that they were missing until the package is cleaned.
  @available(*, unavailable, message: "install the package libxen-dev, then run: swift package clean")
  public final class NativePlatform {
    public init() throws {}
  }
#endif
