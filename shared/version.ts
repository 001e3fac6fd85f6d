// The version that agents and coordinators tell each other and people; the one of package.json (a test compares them).
export const VERSION = '0.1.0';
