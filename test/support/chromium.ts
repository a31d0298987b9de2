// The browser of the machine, for playwright-core: `chromium.launch({ executablePath: await findChromium() })`.
import { programFromPackage } from './debian-package.ts'

/** Path of a Chromium or Chrome; installs Debian's package where that is possible. @throws saying what to install */
export const findChromium = (): Promise<string> =>
  programFromPackage(['chromium', 'chromium-browser', 'google-chrome'], 'chromium')
